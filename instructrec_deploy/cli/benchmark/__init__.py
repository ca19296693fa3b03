"""What `instructrec bench` measures, and how."""
