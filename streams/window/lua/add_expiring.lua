-- Add an entry to a short stream that is for those who listen now, and have the stream expire.
--
-- KEYS[1]  the stream
-- ARGV[1]  '=' or '~': whether exactly or about so many entries are kept
-- ARGV[2]  how many entries are kept
-- ARGV[3]  how long the stream is kept without another entry, in milliseconds
-- ARGV[4…] the fields of the entry, each followed by its value
--
-- One step: a process that dies between the two would leave a key that never expires.

redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], ARGV[2], '*', unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
