"""What the library has: blobs, manifests, tags, models; and what every change to them entails."""
