-- Add an entry to a short stream that only current listeners read, and renew its expiry.
--
-- KEYS[1]  the stream
-- ARGV[1]  '=' or '~': whether exactly or about ARGV[2] entries are kept
-- ARGV[2]  how many entries are kept
-- ARGV[3]  how long the stream is kept without another entry, in milliseconds
-- ARGV[4…] the fields of the entry, each followed by its value
--
-- One script: a process that died between the two commands would leave a key without an expiry.

redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], ARGV[2], '*', unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
