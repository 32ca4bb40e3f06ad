"""From text to ids: vocabularies."""
