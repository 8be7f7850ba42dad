//! mesh-shop
