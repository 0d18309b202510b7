"""Commands of the command line, each with its options and what it does; fastdiff/cli.py gathers them."""
