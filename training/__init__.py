"""How the bundled model was made: data, trainers and their measurements. No part of the package."""
