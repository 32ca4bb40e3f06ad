"""From ids to segments: corpora, and the streams that they are cut into."""
