//! HTTP/2 through both proxies.
