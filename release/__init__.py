"""The making of a release: one version everywhere, the artefacts, and a newcomer's waiting time. Not part of the
package."""
