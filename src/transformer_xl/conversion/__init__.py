"""Old files of other programs, read without running them and written anew as folders of this library."""
