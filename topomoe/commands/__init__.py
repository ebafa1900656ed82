"""What each command of the command line does, above the library and below its flags."""
