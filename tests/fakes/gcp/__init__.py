"""A stand-in for the plugin `gcp`, so that programs on pulumi-gcp run through the real engine without an account.

What it takes comes from pulumi-gcp's own classes (`sdk.py`): an unknown resource type or property, one that is missing
or of another type ends in a check failure. What it makes lies in one JSON file (`cloud.py`), which tests may read and
edit: a resource that is taken out there is gone, one that is changed there has drifted, and a `failures` entry makes a
call fail. What Google would refuse for the value itself (a role that does not exist) it does not know.

A project uses it with these lines of Pulumi.yaml (`FOLDER` is this folder):

    plugins:
      providers:
        - {name: gcp, path: FOLDER, version: 10.2.0}

and STUB_GCP_CLOUD=FILE in the environment of `pulumi`.
"""

VERSION = "10.2.0"
CLOUD_VARIABLE = "STUB_GCP_CLOUD"
