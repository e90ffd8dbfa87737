"""A loyalty programme: customers turn points into rewards."""
