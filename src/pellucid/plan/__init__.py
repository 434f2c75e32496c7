"""What explaining costs here, and which methods fit into a time: arithmetic on what methods declare."""
