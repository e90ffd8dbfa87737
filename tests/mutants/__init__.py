"""The code broken on purpose: patches, and a runner that shows which test catches each."""
