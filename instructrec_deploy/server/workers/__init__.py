"""Several worker processes on one port (`serve --workers`), and the one that looks after them."""
