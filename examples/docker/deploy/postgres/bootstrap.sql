-- Makes the role and the database of Permify. Run by an administrator on the primary: a superuser, or a role with CREATEROLE
-- and CREATEDB. Running it again is harmless and brings a changed budget into force.
--   DATABASE_PASSWORD="$(cat FILE)" psql -X -h postgres-primary -p 5432 -U postgres -d postgres -f postgres/bootstrap.sql
-- Without DATABASE_PASSWORD the role keeps the password it has. psql 14 or newer.

\set ON_ERROR_STOP on
\getenv password DATABASE_PASSWORD

\if :{?password}
-- Keeps the password out of the server's log and statistics. An administrator who may not is stopped where it would be kept.
DO $$
DECLARE
  quiet text[];
BEGIN
  FOREACH quiet SLICE 1 IN ARRAY ARRAY[
    ['log_statement', 'none'],
    ['log_min_duration_statement', '-1'],
    ['log_min_duration_sample', '-1'],
    ['log_transaction_sample_rate', '0'],
    ['auto_explain.log_min_duration', '-1'],
    ['pgaudit.log', 'none'],
    ['pg_stat_statements.track_utility', 'off']
  ] LOOP
    BEGIN
      PERFORM set_config(quiet[1], quiet[2], false);
    EXCEPTION WHEN insufficient_privilege THEN
      NULL;
    END;
  END LOOP;
  -- The one statement below that has the password in its text takes microseconds.
  IF current_setting('log_statement') NOT IN ('none', 'ddl', 'mod')
    OR EXISTS (
      SELECT FROM pg_settings
      WHERE name IN ('log_min_duration_statement', 'log_min_duration_sample', 'auto_explain.log_min_duration')
        AND setting::int BETWEEN 0 AND 100
    )
    OR current_setting('log_transaction_sample_rate')::float > 0
    OR coalesce(current_setting('pgaudit.log', true), '') NOT IN ('', 'none')
    OR current_setting('pg_stat_statements.track_utility', true) = 'on'
      AND current_setting('pg_stat_statements.track', true) = 'all'
  THEN
    RAISE 'this server keeps statements, and the password would be in its log or statistics'
      USING HINT = 'Run this without DATABASE_PASSWORD, then set the password by psql''s \password "permify", which sends a hash.';
  END IF;
END
$$;

-- Of a file that is missing, perhaps. ALTER ROLE would take the password away.
\set password_is_empty `test -n "$DATABASE_PASSWORD" && echo off || echo on`
\if :password_is_empty
DO $$ BEGIN RAISE 'DATABASE_PASSWORD is empty'; END $$;
\endif
\endif

SELECT 'CREATE ROLE "permify" LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'permify') \gexec

-- 80 = max_connections 100 − 20 for others. The whole capacity, so that scaling up needs no administrator, and no
-- more, so that a deployment beyond its budget cannot take connections from others. It binds on each server by itself.
ALTER ROLE "permify" WITH LOGIN CONNECTION LIMIT 80;

-- Permify's tables hold many tenants of very different size: a generic plan fits none of them. PgCat drops this setting
-- from a client's URI, so the role carries it.
ALTER ROLE "permify" SET plan_cache_mode = 'force_custom_plan';

\if :{?password}
-- A statement that fails is logged with its text. So the password comes in one that cannot fail, and the one that a password
-- policy may refuse does not have it in its text.
SELECT set_config('pgcat_stack.password', :'password', false) \g /dev/null
DO $$
BEGIN
  EXECUTE format('ALTER ROLE %I PASSWORD %L', 'permify', current_setting('pgcat_stack.password'));
EXCEPTION WHEN query_canceled OR others THEN
  RAISE 'role "permify" did not get its password: %', SQLERRM;
END
$$;
RESET pgcat_stack.password;
\endif

SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = 'permify') AS made_here \gset
\if :made_here
CREATE DATABASE "permify";
-- Other roles of this server have no business in it; who has, is granted CONNECT. A database that was there keeps its rights.
REVOKE ALL ON DATABASE "permify" FROM PUBLIC;
\endif

GRANT CONNECT ON DATABASE "permify" TO "permify";

\connect "permify"
\if :made_here
REVOKE CREATE ON SCHEMA public FROM PUBLIC; -- PostgreSQL 14 and older let everybody
\endif
GRANT USAGE, CREATE ON SCHEMA public TO "permify";

-- A GRANT by somebody who may not is only a warning, and no connection limit binds a superuser.
DO $$
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = 'permify') THEN
    RAISE 'role "permify" is a superuser, whom no connection limit binds'
      USING HINT = 'Take a role of its own.';
  ELSIF NOT has_database_privilege('permify', 'permify', 'CONNECT')
    OR NOT has_schema_privilege('permify', 'public', 'USAGE')
    OR NOT has_schema_privilege('permify', 'public', 'CREATE')
  THEN
    RAISE 'role "permify" may not make tables in database "permify"'
      USING HINT = 'Run this as the owner of the database, or as a superuser.';
  END IF;
END
$$;

\echo 'bootstrap.sql: role permify and database permify are ready.'
