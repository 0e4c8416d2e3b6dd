"""The commands of `kelpie`, by what they are about. Each module imports the SDKs inside the commands that need them."""
