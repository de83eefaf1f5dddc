"""Pure maths: no parameters, no state. Every function follows the dtype of its inputs."""
