"""Everything that speaks HTTP: change feeds, project metadata, file streams; their faults become our errors."""
