-- Note that a process lives, and learn which do.
--
-- KEYS[1]  the living processes of a shard: process → until when (ms)
-- ARGV[1]  the process
-- ARGV[2]  for how long it is believed without a renewal, in milliseconds
--
-- Returns {known, process, …}: known is 1 when the process was there and had not run out, then
-- the processes that live, this one among them.

local key, process, lasts_ms = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local reply = {0}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  if tonumber(fields[i + 1]) <= now_ms then
    redis.call('HDEL', key, fields[i])
  elseif fields[i] == process then
    reply[1] = 1
  else
    reply[#reply + 1] = fields[i]
  end
end
reply[#reply + 1] = process
redis.call('HSET', key, process, string.format('%.0f', now_ms + lasts_ms))
redis.call('PEXPIRE', key, lasts_ms * 10)
return reply
