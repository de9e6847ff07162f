"""Validates YAML files against a JSON Schema: validate.py SCHEMA FILE…; a line for each mistake."""

import json
import sys

import jsonschema
import yaml

with open(sys.argv[1]) as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
wrong = False
for path in sys.argv[2:]:
    with open(path) as file:
        document = yaml.safe_load(file)
    for error in validator.iter_errors({} if document is None else document):
        wrong = True
        print(f"{path}: {error.json_path}: {error.message}")
sys.exit(1 if wrong else 0)
