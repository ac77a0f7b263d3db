//! artel-web
