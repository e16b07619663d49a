"""The commands, each a module of its name: which there are is seen without importing one."""
