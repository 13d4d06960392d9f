"""What makes a release: one version everywhere, the artefacts, how long a newcomer waits. No part of the package."""
