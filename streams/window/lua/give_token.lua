-- Give a token back to a bucket that all processes share: what it was taken for was not done.
--
-- KEYS[1]  the bucket
-- ARGV[1]  tokens per second
-- ARGV[2]  how many it holds
--
-- A bucket that has gone was full. Never above its size: what the time since has brought is added
-- at the next take, and cut there.

local key = KEYS[1]
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', key, 'tokens', 'at')
if not state[1] then
  return 0
end
local tokens = math.min(burst, tonumber(state[1]) + 1)
redis.call('HSET', key, 'tokens', string.format('%.4f', tokens))
redis.call('PEXPIRE', key, math.ceil(burst * 1000 / rate) + 1000)
return 1
