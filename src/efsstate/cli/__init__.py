"""The command `efsstate`: a module a command, each with a click command or group named `command`."""
