"""What lets programs and tools made for other systems work with this one."""
