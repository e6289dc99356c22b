"""A depth camera and a force sensor for Joinery: recordings of them, and a world that has both."""
