"""The tasks that are built in, besides plain classification, and the section `task` of the run config."""
