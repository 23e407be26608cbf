"""What removes what is no longer wanted."""
