"""The database's schema, revision by revision. ``streamapp.storage.migrations`` applies it."""
