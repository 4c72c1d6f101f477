"""PostgreSQL's own functions that a migration may call: for a default, or for their effect, without harm."""

# What a default may call without being asked once per row; anything else is presumed volatile.
NOT_VOLATILE = {
    "now", "transaction_timestamp", "statement_timestamp", "current_setting",
    "current_database", "to_timestamp", "to_date", "make_date", "make_interval",
    "make_timestamp", "make_timestamptz", "date_trunc", "date_part", "extract", "timezone", "age",
    "jsonb_build_object", "jsonb_build_array", "json_build_object", "json_build_array",
    "jsonb_object", "json_object", "to_json", "to_jsonb", "array_fill", "array_append", "array_cat",
    "lower", "upper", "initcap", "md5", "concat", "concat_ws", "length", "round", "trunc",
    "floor", "ceil", "ceiling", "abs", "power", "mod", "encode", "decode", "to_char", "to_number",
    "string_to_array", "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
    "txid_current", "pg_current_xact_id", "sha256", "sha512", "convert_to", "convert_from",
    "repeat", "left", "right", "lpad", "rpad", "substring", "substr", "btrim", "ltrim", "rtrim",
    "replace", "translate", "format", "to_tsvector", "to_tsquery", "inet_client_addr",
    "numeric", "int4", "int8", "text", "bool", "overlay", "position", "split_part", "reverse",
}  # fmt: skip
SLEEPS = {"pg_sleep", "pg_sleep_for", "pg_sleep_until"}
# Called in a SELECT without FROM, these touch no table of anybody.
HARMLESS_CALLS = NOT_VOLATILE | {
    "set_config", "setval", "nextval", "currval", "lastval", "version", "random", "clock_timestamp",
    "timeofday", "gen_random_uuid", "uuidv4", "uuidv7", "uuid_generate_v4", "uuid_generate_v1",
    "count", "max", "min", "sum", "avg", "bool_and", "bool_or", "every", "array_agg", "string_agg",
    "json_agg", "jsonb_agg", "array_to_string", "array_length", "cardinality", "unnest",
    "generate_series", "row_to_json", "to_regclass", "to_regtype", "to_regproc", "obj_description",
    "col_description", "quote_ident", "quote_literal", "quote_nullable", "current_schema",
    "current_schemas", "txid_snapshot_xmin", "row_number", "regexp_replace", "regexp_match",
    "regexp_matches", "exists", "inet_server_addr", "inet_server_port", "char_length", "strpos",
}  # fmt: skip
