"""Model versions on the mount, and their lazy loading."""
