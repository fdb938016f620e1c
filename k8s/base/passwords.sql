-- Passwords of the accounts, from the environment: they stand neither here nor in the command.
\getenv worker WORKER_PASSWORD
\getenv service SERVICE_PASSWORD
\getenv promoter PROMOTER_PASSWORD
\getenv keeper KEEPER_PASSWORD
SET password_encryption = 'scram-sha-256';
ALTER ROLE lcia_worker PASSWORD :'worker';
ALTER ROLE lcia_service PASSWORD :'service';
ALTER ROLE lcia_promoter PASSWORD :'promoter';
ALTER ROLE lcia_keeper PASSWORD :'keeper';
