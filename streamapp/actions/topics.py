"""What a business can have a text for: ``send_{topic}`` tells the customer."""

from __future__ import annotations

from typing import Final

TOPICS: Final = frozenset(
    {
        "price_list",
        "general_price_list",
        "availability_status",
        "availability_form",
        "product_catalog",
        "service_details",
        "business_hours",
        "location_details",
        "store_locator",
        "contact_details",
        "return_policy",
        "terms_conditions",
        "shipping_info",
        "payment_options",
        "warranty_info",
        "technical_specs",
        "faq",
    }
)
