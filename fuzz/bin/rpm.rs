//! Headers of RPM files.

#![no_main]

use attest::rpm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = rpm::attested(bytes);
    let _ = rpm::front_size(bytes);
    if let Ok(front) = rpm::front(bytes) {
        assert!(front.begin <= front.end && front.end <= bytes.len());
        for tag in [1000, 1001, 1002, 1004, 1006, 1022, 1044, 1049, 1106, 5011] {
            let _ = (front.header.texts(tag), front.header.numbers(tag), front.header.has(tag));
        }
    }
    if let Ok(unsigned) = rpm::unsigned(bytes) {
        let whole = [&unsigned.bytes[..], &bytes[unsigned.instead_of..]].concat();
        let again = rpm::unsigned(&whole).expect("what was taken apart can be taken apart");
        assert_eq!(again.bytes, unsigned.bytes);
        // A signature that is put in can be taken out again.
        let signed = rpm::sign(&whole, &[7; 70]).expect("it has no signature");
        let signed = [&signed.bytes[..], &whole[signed.instead_of..]].concat();
        assert_eq!(rpm::attested(&signed), rpm::attested(bytes));
    }
});
