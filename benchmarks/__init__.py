"""What the promises about speed rest on: `make bench` measures them and writes docs/speed.md."""
