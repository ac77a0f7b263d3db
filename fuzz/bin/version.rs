//! Three versions, one a line, in both orders: what comes before comes before, whoever is asked.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::VERSION);
