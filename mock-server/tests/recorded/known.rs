//! What is known to differ from the recordings, and why. The emulator's README tells the same in words.

/// Differences that one reason explains.
#[derive(Debug)]
pub(crate) struct Known {
    #[allow(dead_code, reason = "for those who read a failure or this file")]
    reason: &'static str,
    /// `<recording> <number>: <difference>`; `*` stands for any text. Each must occur.
    pub(crate) patterns: &'static [&'static str],
}

/// Recorded answers that nothing is compared with.
#[derive(Debug)]
pub(crate) struct NotAsked {
    pub(crate) recording: &'static str,
    pub(crate) numbers: &'static [usize],
    #[allow(dead_code, reason = "for those who read a failure or this file")]
    reason: &'static str,
}

pub(crate) const NOT_ASKED: &[NotAsked] = &[
    NotAsked {
        recording: "interface-and-vm",
        numbers: &[3, 5, 6, 7, 8],
        reason: "A VM of an image, on an unmanaged disk. Its operation has the form of that of the other VM.",
    },
    NotAsked {
        recording: "interface-and-vm",
        numbers: &[12],
        reason: "The same question once more, while the answer is still the same.",
    },
    NotAsked {
        recording: "interface-and-address",
        numbers: &[3],
        reason: "Scale sets are not modelled.",
    },
    NotAsked {
        recording: "errors",
        numbers: &[0, 2, 3],
        reason: "PATCH of a VM is not modelled; which refusals of others have `details` or a `target` is not known.",
    },
    NotAsked {
        recording: "errors",
        numbers: &[4, 9, 10],
        reason: "Quotas, linked subscriptions and registrations of providers are not modelled.",
    },
    NotAsked {
        recording: "errors",
        numbers: &[12, 13, 14, 15, 17, 18, 19, 20, 22],
        reason: "Of providers and services that are not modelled; policies are not modelled.",
    },
];

pub(crate) const DIFFERENCES: &[Known] = &[
    Known {
        reason: "Later API versions than that of the recording have these members; any version is answered alike.",
        patterns: &[
            // Recorded 2019-07-01 and 2020-06-30, which knew neither; 2022-03-02 does.
            "disk-*: adds */networkAccessPolicy",
            "disk-*: adds */publicNetworkAccess",
            "disk-and-snapshots *: adds */incrementalSnapshotFamilyId",
            // Recorded 2020-06-01.
            "vm*: adds */deleteOption",
            "vm*: adds */timeCreated",
            "interface-and-vm *: adds /properties/storageProfile/osDisk/deleteOption",
            "interface-and-vm *: adds /properties/timeCreated",
            // A recording of 2017.
            "vm-deallocated 0: adds /properties/instanceView/hyperVGeneration",
            "vm-deallocated 0: adds /properties/storageProfile/dataDisks/*/toBeDetached",
            // Recorded 2018-02-01 and 2019-09-01.
            "interface-and-address *: adds /properties/hostedWorkloads",
            "interface-and-address *: adds /properties/tapConfigurations",
            "interface-and-address *: adds /properties/ipConfigurations/*/type",
            "interface-and-*: adds /properties/nicType",
        ],
    },
    Known {
        reason: "Only earlier API versions have these members.",
        patterns: &[
            "interface-and-address *: lacks /properties/ipConfigurations/*/properties/isInUseWithService",
            "interface-and-address *: lacks /properties/virtualNetworkTapProvisioningState",
        ],
    },
    Known {
        reason: "The first answer to the creation of a disk or snapshot has the form of the recordings of 2022 and 2023 (what was \
                 asked for, with id, name and type), not that of 2019.",
        patterns: &[
            "disk-*: lacks /properties/isArmResource",
            "disk-*: adds /id",
            "disk-*: adds /type",
            "disk-and-snapshots *: adds /name",
            "disk-and-snapshots *: lacks /properties/creationData/sourceUniqueId",
        ],
    },
    Known {
        reason: "Polling addresses have the signed form of the recording of November 2023 (p, t, c, s, h), for every API version.",
        patterns: &[
            "*: has header azure-asyncoperation */DiskOperations/*?api-version&c&h&p&s&t instead of *?api-version",
            "*: has header location */DiskOperations/*?api-version&c&h&monitor&p&s&t instead of *?api-version&monitor",
            "snapshot-access *: has header azure-asyncoperation *?api-version&c&h&p&s&t instead of *?api-version&p",
            "snapshot-access *: has header location *?api-version&c&h&monitor&p&s&t instead of *?api-version&monitor&p",
            "interface-and-vm *: has header azure-asyncoperation *Microsoft.Compute/locations/eastus/operations/*?api-version&c&h&p&s&t instead of *?api-version",
            "interface-and-vm *: has header location *Microsoft.Compute/locations/eastus/operations/*?api-version&c&h&monitor&p&s&t instead of *?api-version&monitor",
            "interface-and-vm *: has header azure-asyncoperation *Microsoft.Network/locations/eastus/operations/*?api-version&c&h&s&t instead of *?api-version",
        ],
    },
    Known {
        reason: "Retry-After is one setting for all operations; Azure gives it for some, and in the course of time for fewer.",
        patterns: &[
            "disk-*: adds header retry-after",
            "snapshot-*: adds header retry-after",
            "interface-and-vm *: adds header retry-after",
        ],
    },
    Known {
        reason: "Set to 0 in every answer by the tool that recorded.",
        patterns: &["errors *: lacks header retry-after"],
    },
    Known {
        reason: "Azure writes one id in several ways; here a resource group has one spelling.",
        patterns: &["vms-of-subscription 0: has another case at /value/*/id"],
    },
    Known {
        reason: "Extensions are not modelled.",
        patterns: &["vms-of-subscription 0: lacks /value/*/resources"],
    },
    Known {
        reason: "There is no guest, so nothing that its agent would tell.",
        patterns: &[
            "vm-*: lacks /properties/instanceView/vmAgent",
            "vm-running 0: lacks /properties/instanceView/computerName",
            "vm-running 0: lacks /properties/instanceView/osName",
            "vm-running 0: lacks /properties/instanceView/osVersion",
        ],
    },
    Known {
        reason: "Unmanaged disks are not modelled; the machine asked for instead has managed ones, of which no size is shown while \
                 it is deallocated.",
        patterns: &[
            "vm-*: lacks /properties/storageProfile/*/vhd",
            "vm-*: adds /properties/storageProfile/*/managedDisk",
            "vm-deallocated 0: lacks /properties/storageProfile/*/diskSizeGB",
        ],
    },
    Known {
        reason: "Snapshots made empty are not modelled; the one asked for instead is an incremental one of a disk.",
        patterns: &[
            "snapshot-access *: adds */creationData/sourceResourceId",
            "snapshot-access *: adds */creationData/sourceUniqueId",
            "snapshot-access *: adds */incrementalSnapshotFamilyId",
            "snapshot-access 0: adds /properties/incremental",
            "snapshot-access 0: lacks /properties/diskSizeGB",
        ],
    },
    Known {
        reason: "Full snapshots are not modelled; the one asked for instead says that it is incremental.",
        patterns: &["disk-and-snapshots 3: adds /properties/incremental"],
    },
    Known {
        reason: "The source of the recording put a word in place of the SAS.",
        patterns: &[
            "disk-access *: has an address with sv&sr&si&sig instead of a text at */accessSAS",
        ],
    },
    Known {
        reason: "SAS of guest state are not modelled, and the SAS of a disk has the form of the recordings, not of the specification's \
                 example.",
        patterns: &[
            "access-to-guest-state 0: has an address with sv&sr&si&sig instead of an address with sv&sr&sk&sig&st&se&sp at /accessSAS",
            "access-to-guest-state 0: lacks /securityDataAccessSAS",
            "access-to-guest-state 0: lacks /securityMetadataAccessSAS",
        ],
    },
    Known {
        reason: "Refusals do not tell the remaining requests of a compute policy.",
        patterns: &["errors 1: lacks header x-ms-ratelimit-remaining-resource"],
    },
    Known {
        reason: "The recorded failure is the network provider's, of an operation that had begun.",
        patterns: &[
            "errors 16: lacks /error/details",
            "errors 16: lacks header location",
        ],
    },
];

/// Whether a pattern stands for a difference.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter(|&at| text.is_char_boundary(at))
                .any(|at| fits(rest, &text[at..]))
        }),
    }
}

#[test]
fn patterns_stand_for_whole_texts() {
    assert!(fits("a *: adds */b", "a 1: adds /x/b"));
    assert!(!fits("a *: adds */b", "a 1: adds /x/bc"));
    assert!(!fits("a: lacks /b", "a: lacks /b/c"));
}
