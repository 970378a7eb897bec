"""What Alembic runs: on the connection that `engine.database` gives it, within its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
