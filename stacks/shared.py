"""The environment `shared`: what dev, staging and prod stand on, in one Google Cloud project."""

from providers import shared

project = shared.Project("project", shared.settings())
identities = shared.Identities("identities", project)

store = shared.Store("store", project, identities)
images = shared.Images("images", project, identities)
secrets = shared.Secrets("secrets", project, identities, shared.values())
github = shared.GitHub("github", project, identities)

shared.export(project, store=store, images=images, secrets=secrets, github=github)
