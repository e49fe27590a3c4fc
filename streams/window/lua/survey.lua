-- Describe the window of one project for an operator. Reads only.
--
-- KEYS[1]  the project's stream
-- ARGV[1]  the id to begin at, or '-'
-- ARGV[2]  how many entries at most: the newest ones from there on
--
-- Returns {entries in the stream, bytes it takes or -1, milliseconds until it expires (-1: never,
-- -2: no such key), then id and publishing time of each entry, newest first}. The entries' data
-- stays here.

local key = KEYS[1]
local bytes = redis.pcall('MEMORY', 'USAGE', key)
if type(bytes) ~= 'number' then
  -- No such key, or this user may not run MEMORY.
  bytes = -1
end
local found = {redis.call('XLEN', key), bytes, redis.call('PTTL', key)}
for _, entry in ipairs(redis.call('XREVRANGE', key, '+', ARGV[1], 'COUNT', ARGV[2])) do
  local fields = entry[2]
  found[#found + 1] = entry[1]
  found[#found + 1] = fields and fields[5] == 'at' and fields[6] or ''
end
return found
