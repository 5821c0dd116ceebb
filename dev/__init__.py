"""What the people who work on this project run; nothing here is shipped."""
