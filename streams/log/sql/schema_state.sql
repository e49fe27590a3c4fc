SELECT to_regclass('schema_migrations') IS NOT NULL AS is_migrated,
       current_setting('transaction_read_only') = 'on' AS is_read_only,
       ARRAY(
           SELECT relation
             FROM unnest($1::text[]) AS relation
            WHERE has_table_privilege(to_regclass(relation)::oid, 'SELECT') IS NOT TRUE
       ) AS lacking
