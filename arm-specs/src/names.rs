//! Names and documentation text of the output.

use heck::{ToLowerCamelCase, ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};
use proc_macro2::Ident;
use quote::format_ident;

/// A function, field or parameter: `diskSizeGB` gives `disk_size_gb`, `type` gives `r#type`.
#[must_use]
pub fn snake(wire: &str) -> Ident {
    let name = wire.to_snake_case();
    if syn::parse_str::<Ident>(&name).is_ok() {
        format_ident!("{name}")
    } else {
        format_ident!("r#{name}")
    }
}

/// A constant: `VirtualMachines_ListAll` gives `VIRTUAL_MACHINES_LIST_ALL`.
#[must_use]
pub fn shouty(wire: &str) -> Ident {
    format_ident!("{}", wire.to_shouty_snake_case())
}

/// A type or variant: `OSDisk` gives `OsDisk`, `ActiveSAS` gives `ActiveSas`.
#[must_use]
pub fn camel(wire: &str) -> Ident {
    format_ident!("{}", wire.to_upper_camel_case())
}

/// Whether `#[serde(rename_all = "camelCase")]` alone gives the wire name of the field that [`snake`] made of it.
#[must_use]
pub fn is_camel_case(wire: &str) -> bool {
    wire.to_snake_case().to_lower_camel_case() == wire
}

/// A documentation line, with the space that sets it off.
#[must_use]
pub fn doc(text: &str) -> String {
    format!(" {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acronyms_are_words() {
        for (wire, expected) in [
            ("diskSizeGB", "disk_size_gb"),
            ("diskIOPSReadWrite", "disk_iops_read_write"),
            ("accessSAS", "access_sas"),
            ("VirtualMachines_ListAll", "virtual_machines_list_all"),
            ("PublicIPAddresses_Get", "public_ip_addresses_get"),
            ("$expand", "expand"),
            ("type", "r#type"),
        ] {
            assert_eq!(snake(wire).to_string(), expected);
        }
        assert_eq!(camel("OSDisk"), "OsDisk");
        assert_eq!(shouty("PageBlob_UploadPages"), "PAGE_BLOB_UPLOAD_PAGES");
    }

    #[test]
    fn only_regular_names_need_no_rename() {
        assert!(is_camel_case("osType"));
        assert!(!is_camel_case("diskSizeGB"));
        assert!(!is_camel_case("LastOwnershipUpdateTime"));
    }
}
