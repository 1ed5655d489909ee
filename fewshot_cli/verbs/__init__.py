"""What the Python API and the command line call, one file a verb: from options to a finished result."""
