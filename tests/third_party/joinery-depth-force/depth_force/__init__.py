"""A depth camera and a force sensor for Joinery: a reader, a vision encoder, an environment."""
