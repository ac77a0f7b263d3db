//! Keys and signatures of OpenSSH: blobs as envelopes carry them, and the texts that people's own tools write.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::SSHSIG);
