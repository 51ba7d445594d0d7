-- What a tenant would lose in credits if it were deleted now. tenancy.delete_tenant asks every domain for its own.

CREATE FUNCTION tenancy._obligations_credits(tenant_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT jsonb_build_object('pools', count(*), 'credits', sum(p.balance - p.held), 'held', sum(p.held))
              FROM tenancy.credit_pools AS p
             WHERE p.tenant_id = _obligations_credits.tenant_id AND (p.balance > 0 OR p.held > 0)
            HAVING count(*) > 0);
END
$$;

COMMENT ON FUNCTION tenancy._obligations_credits(text) IS
'How many pools of a tenant still hold credits, how many are available in them and how many are held; NULL: none.';
