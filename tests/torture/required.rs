//! What each scene asks of Azure, written down so that the matrix cannot lose a kind of request unnoticed.

use crate::matrix::Kind;
use crate::scene::Scene;

/// Operations of a scene, and how many requests of each there are at least.
pub(crate) fn requests(scene: Scene) -> &'static [(&'static str, u64)] {
    match scene {
        Scene::Backup => &[],
        Scene::ByBlob => &[],
        Scene::Restore => &[],
        Scene::BackupAfterDeath => &[],
        Scene::RestoreAfterDeath => &[],
    }
}

/// # Panics
///
/// Something is missing.
pub(crate) fn assert_all(kinds: &[Kind]) {
    for scene in Scene::ALL {
        for &(operation, least) in requests(scene) {
            let mut of_scene = kinds.iter().filter(|kind| kind.scene == scene);
            let kind = of_scene.find(|kind| kind.operation == operation);
            let counted = kind.map_or(0, |kind| kind.counted.requests);
            assert!(
                counted >= least,
                "{scene:?} asks {counted} times for {operation} instead of {least}"
            );
        }
    }
}
